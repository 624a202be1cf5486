"""What can go wrong between a client and a server, with the exit codes of the command line."""

from typing import Any

import httpx

from dpdy_core.errors import Cancelled, DpdyError

CAPTURE_PROBLEMS = {"bad-input", "cameras-failed", "upload-empty", "upload-rejected"}


class ServerUnreachable(DpdyError):
    """No usable answer from the server. Says nothing about the job, which may go on."""

    type = "server-unreachable"
    title = "The server cannot be reached"
    exit_code = 6
    retryable = True


class BadRequest(DpdyError):
    """The server refused the request; exit code 3 if the capture is the reason, else 2."""

    title = "The server refused the request"

    def __init__(self, status: int, problem: dict[str, Any]) -> None:
        detail = str(problem.get("detail") or problem.get("title") or f"the server answered {status}")
        unsaid = [error for error in problem.get("errors") or [] if error.get("field", "") not in detail]
        detail += f" ({'; '.join(map(_field, unsaid))})" if unsaid else ""
        super().__init__(detail, str(problem.get("remedy") or ""))
        self.status = status
        self.type = slug(problem)
        self.title = str(problem.get("title") or self.title)
        self.retryable = bool(problem.get("retryable"))
        self.exit_code = 3 if self.type in CAPTURE_PROBLEMS or status in (413, 415) else 2


class JobFailed(DpdyError):
    """The job ended without success; exit code 3 if the capture is the reason, else 4."""

    title = "The job failed"

    def __init__(self, job: dict[str, Any]) -> None:
        problem = job.get("problem") or {}
        detail = problem.get("detail") or problem.get("title") or f"it ended as {job['state']}"
        super().__init__(f"job {job['id']}: {detail}", str(problem.get("remedy") or f"see `dpdy logs {job['id']}`"))
        self.type = slug(problem) if problem else "job-failed"
        self.title = str(problem.get("title") or self.title)
        self.retryable = bool(problem.get("retryable"))
        self.exit_code = 3 if self.type in CAPTURE_PROBLEMS else 4


def slug(problem: dict[str, Any]) -> str:
    """The last part of a problem's `type`, which may be a URI."""
    return str(problem.get("type") or "about:blank").rstrip("/").rpartition("/")[2].rpartition(":")[2]


def refusal(response: httpx.Response) -> DpdyError:
    """The error that a response with a status of 400 or more stands for (its body must have been read)."""
    try:
        problem = response.json()
    except ValueError:
        problem = {}
    if not isinstance(problem, dict):
        problem = {}
    if response.status_code >= 500:
        detail = problem.get("detail") or response.reason_phrase
        return ServerUnreachable(
            f"the server answered {response.status_code}: {detail}", "try again later, or look at the server's log"
        )
    return BadRequest(response.status_code, problem)


def raise_unless_succeeded(job: dict[str, Any]) -> None:
    """Raise JobFailed or Cancelled for a job that ended in another way than success."""
    if job["state"] == "cancelled":
        raise Cancelled(f"job {job['id']} was cancelled", f"`dpdy retry {job['id']}` goes on from its last checkpoint")
    if job["state"] != "succeeded":
        raise JobFailed(job)


def _field(error: dict[str, Any]) -> str:
    return f"{error.get('field', '')}: {error.get('detail', 'invalid')}"
