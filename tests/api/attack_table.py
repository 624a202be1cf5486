"""The table of attacks: what is sent, and the status that refuses it. Names in braces are what `ours` has."""

JSON = "Content-Type: application/json\r\n"
CLOSED = 0  # 400 and the end of the connection, perhaps while we still send

# who sends what: caller, method, target, more header lines, body; the status that answers it
Attack = tuple[str, str, str, str, str | bytes, int]
CROSSING: list[Attack] = [
    ("theirs", method, target, JSON if body else "", body, 404)
    for method, target, body in (
        ("GET", "/v1/jobs/{job}", ""),
        ("DELETE", "/v1/jobs/{job}", ""),
        ("POST", "/v1/jobs/{job}/cancel", ""),
        ("POST", "/v1/jobs/{job}/retry", ""),
        ("POST", "/v1/jobs/{job}/renders", '{"path": "orbit"}'),
        ("GET", "/v1/jobs/{job}/logs", ""),
        ("GET", "/v1/jobs/{job}/events", ""),
        ("GET", "/v1/jobs/{job}?wait=1", ""),
        ("GET", "{files}", ""),
        ("GET", "{files}.zip", ""),
        ("GET", "{file}", ""),
        ("HEAD", "{file}", ""),
        ("GET", "/v1/jobs/{job}/webhook", ""),
        ("POST", "/v1/jobs/{job}/webhook/test", ""),
        ("POST", "/v1/jobs/{job}/webhook/deliveries/{job}-1/resend", ""),
        ("GET", "/v1/uploads/{upload}", ""),
        ("DELETE", "/v1/uploads/{upload}", ""),
        ("GET", "/v1/studies/{study}/results", ""),
        ("GET", "/v1/studies/{study}/votes.csv", ""),
        ("POST", "/v1/studies/{study}/close", ""),
        ("POST", "/v1/studies/{study}/invitations", '{"count": 1}'),
        ("DELETE", "/v1/studies/{study}", ""),
    )
] + [("theirs", "POST", "/v1/jobs", JSON, '{"upload_id": "{upload}", "preset": "smoke"}', 422)]
WRONG_KEYS = ["late", "revoked", "unknown", "twin", "typo", "cut", "basic", "bare", "double", "long", "folded"]
WRONG_KEYS += ["forged", "unsigned"]
WITHOUT_RIGHT: list[Attack] = [
    *(
        ("nobody", "GET", target, "", "", 401)
        for target in ("/v1/jobs", "/v1/none", "/metrics", "{file}", "/v1/webhooks/secret")
    ),
    *((caller, "GET", "/v1/jobs", "", "", 401) for caller in WRONG_KEYS),
    ("nobody", "GET", "/v1/jobs?api_key={upload}", "", "", 401),
    ("reader", "DELETE", "/v1/jobs/{job}", "", "", 403),
    ("reader", "POST", "/v1/webhooks/secret/rotate", "", "", 403),
    ("reader", "GET", "/v1/webhooks/secret", "", "", 403),
    ("ours", "GET", "/metrics", "", "", 403),
    ("cookie", "DELETE", "/v1/jobs/{job}", "", "", 403),
    ("crossed", "DELETE", "/v1/jobs/{job}", "", "", 403),
    ("cookie", "DELETE", "/v1/jobs/{job}", "Origin: https://evil.example\r\n", "", 403),
    ("nobody", "POST", "/v1/session", "Sec-Fetch-Site: cross-site\r\n" + JSON, '{"key": "x"}', 403),
]
FORGED_LINKS: list[Attack] = [
    ("nobody", method, target, "", "", 401)
    for method, target in (
        ("GET", "{file}?{query}A"),
        ("GET", "{file}?{query}&tenant=ours"),
        ("GET", "{file}?{query}&expires=9999999999"),
        ("GET", "{file}?expires=9999999999&tenant=ours&signature="),
        ("GET", "{file}?signature=%FF%FE&expires=1&tenant=ours"),
        ("GET", "{files}?{query}"),
        ("GET", "{files}/metrics.json?{query}"),
        ("GET", "{files}/renders/../metrics.json?{query}"),
        ("GET", "/v1/jobs?{query}"),
        ("GET", "/v1/shared/{job}/9999999999.ours./renders/orbit.mp4"),
        ("GET", "/v1/shared/{job}/9999999999.theirs.x/renders/orbit.mp4"),
        ("GET", "/v1/shared/{job}/renders/orbit.mp4?{query}"),
        ("DELETE", "{file}?{query}"),
        ("POST", "/v1/jobs/{job}/cancel?{query}"),
    )
]
TRAVERSAL: list[Attack] = [
    ("ours", "GET", target, "", "", 404)
    for target in (
        "{files}/../../../../uploads/x",
        "{files}/..%2f..%2f..%2f..%2fuploads/x",
        "{files}/%2e%2e/%2e%2e/secret",
        "{files}/..%5c..%5csecret",
        "{files}//etc/passwd",
        "{files}/%2fetc%2fpasswd",
        "{files}/renders/orbit.mp4/.",
        "{files}/log.jsonl",
        "/static/../settings.py",
        "/static/%2e%2e/settings.py",
        "/static/..%2fsettings.py",
        "/static//etc/passwd",
        "/v1/jobs/..%2f..%2fsecret",
        "/v1/uploads/..%2f..%2fsecret",
        "/v1/jobs/" + "x" * 5000,
    )
]
NAMES: list[Attack] = [
    ("ours", "GET", "{files}/%00", "", "", 404),
    ("ours", "GET", "{files}/renders/orbit.mp4%00.txt", "", "", 404),
    ("ours", "POST", "/v1/uploads?filename=..", "", "x", 422),
    ("ours", "POST", "/v1/uploads?filename=a/..", "", "x", 422),
    ("ours", "POST", "/v1/uploads?filename=%00", "", "x", 422),
    ("ours", "POST", "/v1/uploads?filename=" + "x" * 4000, "", "x", 422),
    ("ours", "POST", "/v1/uploads?filename=", "", "x", 422),
]
RANGES: list[Attack] = [
    ("ours", "GET", "{file}", f"Range: bytes={wanted}\r\n", "", 416)
    for wanted in ("99999999-", "-0", "102400-102401", ",".join(["0-1"] * 2000), "0-" + "9" * 300)
]
REQUESTS: list[Attack] = [
    ("ours", "PUT", "/v1/jobs", "", "", 405),
    ("ours", "PATCH", "/v1/jobs/{job}", "", "", 405),
    ("ours", "TRACE", "/v1/jobs", "", "", 405),
    ("ours", "CONNECT", "/v1/jobs", "", "", 405),
    ("ours", "POST", "/v1/jobs", "Content-Type: text/xml\r\n", "<!DOCTYPE x SYSTEM 'file:///etc/passwd'><x/>", 422),
    ("ours", "POST", "/v1/jobs", "Content-Type: application/x-www-form-urlencoded\r\n", "upload_id={upload}", 422),
    ("ours", "POST", "/v1/jobs", JSON, "[]", 422),
    ("ours", "POST", "/v1/jobs", JSON, '{"upload_id": ', 422),
    ("ours", "POST", "/v1/jobs", JSON, b'{"upload_id": "\xff"}', 400),
    ("ours", "POST", "/v1/jobs", JSON, "[" * 3000 + "]" * 3000, 413),
    ("ours", "POST", "/v1/jobs", JSON, "[" * 2000 + "]" * 2000, 400),
    ("ours", "POST", "/v1/jobs", JSON, '{"upload_id": "{upload}", "preset": "../../x"}', 422),
    ("ours", "POST", "/v1/jobs", JSON, '{"upload_id": "{upload}", "admin": true}', 422),
    ("ours", "POST", "/v1/jobs", JSON, '{"upload_id": "{upload}", "tenant": "theirs"}', 422),
    ("ours", "POST", "/v1/jobs", JSON, '{"upload_id": "{upload}", "settings": {"__class__": 1}}', 422),
    ("ours", "POST", "/v1/jobs", JSON, '{"upload_id": "{upload}", "settings": {"prior.model": "../../etc"}}', 422),
    ("ours", "POST", "/v1/jobs", JSON, '{"upload_id": "{upload}", "name": "\\u001b[2J"}', 422),
    ("ours", "POST", "/v1/jobs", JSON, '{"upload_id": "{upload}", "start_deadline": 1e999}', 422),
    ("ours", "POST", "/v1/jobs", JSON, '{"upload_id": "{upload}", "camera_paths": ["../x"]}', 422),
    *(
        ("ours", "POST", "/v1/jobs", JSON, '{"upload_id": "{upload}", "webhook": "' + url + '"}', 422)
        for url in ("http://169.254.169.254/latest", "https://127.0.0.1/", "https://[::1]/", "file:///etc/passwd")
    ),
    ("ours", "POST", "/v1/uploads?filename=a.mp4", "Content-Type: multipart/form-data; boundary=x\r\n", "--x--", 415),
    ("ours", "GET", "/v1/jobs?limit=1000000000", "", "", 422),
    ("ours", "GET", "/v1/jobs?state=queued%27%20OR%201=1--", "", "", 422),
    ("ours", "GET", "/v1/jobs?cursor=%27;DROP%20TABLE%20jobs", "", "", 422),
    ("ours", "GET", "/v1/jobs/{job}?wait=nan", "", "", 422),
    ("ours", "GET", "/v1/jobs/{job}/logs?after=-1", "", "", 422),
    ("ours", "GET", "/v1/jobs/{job}/events", "Last-Event-ID: -1\r\n", "", 422),
    ("ours", "POST", "/v1/jobs", JSON + "Idempotency-Key: " + "k" * 300 + "\r\n", '{"upload_id": "{upload}"}', 422),
]
SIZES: list[Attack] = [
    ("ours", "POST", "/v1/jobs", JSON, '{"name": "' + "x" * 5000 + '"}', 413),
    ("ours", "POST", "/v1/uploads?filename=a.mp4", "", "x" * 5000, 413),
    ("ours", "GET", "/v1/jobs", "X-Large: " + "x" * 200_000 + "\r\n", "", CLOSED),
    ("ours", "GET", "/v1/jobs", "X-Many: x\r\n" * 20_000, "", CLOSED),
    ("ours", "GET", "/v1/jobs?" + "x" * 200_000, "", "", CLOSED),
    ("ours", "GET", "/v1/jobs", "X: a\x00b\r\n", "", 400),
    ("ours", "GET", "/v1/jobs", "No colon\r\n", "", 400),
    ("ours", "POST", "/v1/jobs", JSON + "Content-Length: 5\r\n", "{}", 400),
    ("ours", "POST", "/v1/jobs", JSON + "Content-Length: -5\r\n", "", 400),
    ("ours", "POST", "/v1/jobs", JSON + "Transfer-Encoding: xchunked\r\n", "{}", 400),
    ("ours", "POST", "/v1/jobs", JSON + "Transfer-Encoding: chunked\r\n", "zz\r\n{}\r\n", 400),
]
TABLE = [*CROSSING, *WITHOUT_RIGHT, *FORGED_LINKS, *TRAVERSAL, *NAMES, *RANGES, *REQUESTS, *SIZES]
