// Calls `refresh` whenever the job changed: by server-sent events, by asking where they do not come through.
const KINDS = ["state", "stage", "progress", "warning", "preview", "deleting", "deleted"];
const PAUSE = 400; // ms between two refreshes
const POLL = 2500;
const CHECK = 10000; // even with events, look now and then

// `refresh` returns a promise of whether the job has ended. Returns a function that stops following.
export function follow(events, refresh, onError) {
  let stopped = false;
  let running = false;
  let wanted = false;
  let timer = null;
  let streaming = false;
  const source = new EventSource(events);
  for (const kind of KINDS) source.addEventListener(kind, () => request());
  source.addEventListener("open", () => (streaming = true));
  source.addEventListener("error", () => (streaming = false)); // it reconnects by itself, or polling goes on

  async function request() {
    wanted = true;
    if (running || stopped) return;
    running = true;
    while (wanted && !stopped) {
      wanted = false;
      try {
        if (await refresh()) stop();
      } catch (error) {
        onError(error);
        if (error.status === 404 || error.status === 410) stop();
      }
      await new Promise((resolve) => setTimeout(resolve, PAUSE));
    }
    running = false;
    clearTimeout(timer);
    if (!stopped) timer = setTimeout(request, streaming ? CHECK : POLL);
  }

  function stop() {
    stopped = true;
    source.close();
    clearTimeout(timer);
  }

  request();
  return stop;
}
