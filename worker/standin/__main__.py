import sys
from pathlib import Path

if sys.argv[1] == "inspect":
    from worker.standin.inspect import inspect

    inspect(Path(sys.argv[2]))
else:
    from worker.standin.run import main

    main()
