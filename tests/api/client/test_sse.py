from api.client.sse import parse_events


def test_events_have_their_id_kind_and_data() -> None:
    lines = [": ping", "", "id: 7", "event: state", 'data: {"state": "running"}', "", "data: a", "data:b", ""]
    assert list(parse_events(lines)) == [
        {"id": "7", "event": "state", "data": {"state": "running"}},
        {"id": "7", "event": "message", "data": "a\nb"},  # the id stays, the kind does not
    ]


def test_an_event_cut_off_by_the_end_is_dropped() -> None:
    assert list(parse_events(["id: 1", "data: 1", "", "id: 2", "data: 2"])) == [
        {"id": "1", "event": "message", "data": 1}
    ]


def test_lines_of_unknown_fields_and_events_without_data_are_ignored() -> None:
    assert list(parse_events(["retry: 2000", "id: 3", "", "nonsense", ""])) == []
