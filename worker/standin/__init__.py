"""A stand-in for the engine: the same commands, events, files and exit codes, in milliseconds and without torch.

For tests and drills. What it does is steered by the name of the preset's token: `prior.token` holds `key=value` words,
joined by commas: steps=N, sleep=SECONDS (a step), fail=CODE (at the end of `scene`), crash=N (SIGKILL itself in the
first N attempts), deaf=1 (ignores SIGTERM), orphan=1 (leaves a grandchild in the group), lines=N (log lines). In the
first N attempts: oom=N, gpulost=N (reports it at the end of `scene`), hang=N (stops at step 2 or later, deaf to
SIGTERM). slowsave=SECONDS (the checkpoint of a stop takes so long), ballast=BYTES (each step writes so much: for disks
that run full).
`inspect` goes by the file's first bytes: `bad`, `crash`, `hang`, everything else is ready.
"""
