import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from api.settings import Settings
from api.signing import Links, make_links

SECRET = b"a secret of the tests, and long."
PATH = "/v1/jobs/job-1/artifacts/renders/a b&c=d?.mp4"
NOW = 1_800_000_000.0


def links(secret: bytes = SECRET, now: float = NOW) -> Links:
    return Links(secret, 900, lambda: now)


def parts(link: str) -> tuple[str, str]:
    split = urlsplit(link)
    return unquote(split.path), split.query


def test_a_link_opens_its_path_for_its_tenant_and_time() -> None:
    path, query = parts(links().sign(PATH, "acme"))
    assert path == PATH
    assert {links().tenant_of(method, path, query) for method in ("GET", "HEAD")} == {"acme"}
    assert links().tenant_of("GET", path, query + "&download=true") == "acme"
    assert links(now=NOW + 899).tenant_of("GET", path, query) == "acme"
    assert links(now=NOW + 900).tenant_of("GET", path, query) is None


@pytest.mark.parametrize("method", ["POST", "DELETE", "PUT", "OPTIONS", "get"])
def test_it_reads_only(method: str) -> None:
    path, query = parts(links().sign(PATH, "acme"))
    assert links().tenant_of(method, path, query) is None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("tenant=acme", "tenant=other"),
        ("tenant=acme", "tenant=acme&tenant=other"),
        ("tenant=acme", ""),
        ("expires=18", "expires=19"),
        ("expires=18", "expires=-18"),
        ("expires=18", "expires=٣18"),
        ("signature=", "signature=A"),
        ("signature=", "signature=&x="),
        ("signature=", "signature=é"),
        ("expires=18", "&".join(["x=1"] * 50) + "&expires=18"),
    ],
)
def test_what_was_changed_opens_nothing(old: str, new: str) -> None:
    path, query = parts(links().sign(PATH, "acme"))
    assert old in query
    assert links().tenant_of("GET", path, query.replace(old, new, 1)) is None


@pytest.mark.parametrize("path", [PATH + "x", PATH.upper(), "/v1/jobs/job-2/artifacts/x", "/v1/jobs/job-1", ""])
def test_it_opens_no_other_path(path: str) -> None:
    _, query = parts(links().sign(PATH, "acme"))
    assert links().tenant_of("GET", path, query) is None


def test_fields_cannot_flow_into_each_other() -> None:
    one, other = (parse_qs(parts(links().sign(*of))[1])["signature"] for of in (("/a", "bc"), ("/ab", "c")))
    assert one != other


def test_a_new_secret_revokes_all_links() -> None:
    path, query = parts(links().sign(PATH, "acme"))
    assert links(b"another secret, made by the owner").tenant_of("GET", path, query) is None


def test_without_a_secret_one_is_made_once_and_kept(make_settings: Callable[..., Settings], tmp_path: Path) -> None:
    settings = make_settings()
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: make_links(settings), range(8)))
    path, query = parts(made[0].sign(PATH, "acme"))
    assert {each.tenant_of("GET", path, query) for each in (*made, make_links(settings))} == {"acme"}
    kept = settings.data / "secret"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert [file.name for file in settings.data.iterdir() if "secret" in file.name] == ["secret"]
    elsewhere = make_settings(data=tmp_path / "elsewhere")
    assert make_links(elsewhere).tenant_of("GET", path, query) is None


def test_the_secret_of_the_settings_counts_and_is_not_shown(make_settings: Callable[..., Settings]) -> None:
    one, two = (make_settings(secret="s" * 32, data=name) for name in ("/none/a", "/none/b"))
    path, query = parts(make_links(one).sign(PATH, "acme"))
    assert make_links(two).tenant_of("GET", path, query) == "acme"
    assert "ssss" not in repr(one)


def test_a_shared_page_opens_the_files_beside_it_and_no_others() -> None:
    path, _ = parts(links().share("job-1", "acme", "report.html"))
    beside = path.replace("report.html", "renders/orbit.mp4")
    assert {links().sharer(method, at) for method in ("GET", "HEAD") for at in (path, beside)} == {"acme"}
    assert links(now=NOW + 899).sharer("GET", path) == "acme"
    assert links(now=NOW + 900).sharer("GET", path) is None
    assert links().sharer("POST", path) is None
    for old, new in (("job-1", "job-2"), (".acme.", ".other."), ("/18", "/19"), ("shared", "jobs"), ("/report", "")):
        assert links().sharer("GET", path.replace(old, new)) is None
    query = urlsplit(links().sign("/v1/shared/job-1", "acme")).query  # a link of one kind is none of the other
    assert links().sharer("GET", f"/v1/shared/job-1/{query}/report.html") is None
