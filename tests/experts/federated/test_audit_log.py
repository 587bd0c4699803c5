"""The audit log: one line an entry, whatever a bank wrote, and after a kill."""

import json

from finlora.experts.federated.audit_log import MAX_CAUSE, AuditLog


def test_entries_are_appended_in_order(tmp_path) -> None:
    for number in (1, 2):
        AuditLog(tmp_path / "log").write(number, "north", f"Cause {number}.")
    entries = AuditLog(tmp_path / "log").entries()
    assert [(entry["round"], entry["bank"], entry["cause"]) for entry in entries] == [
        (1, "north", "Cause 1."),
        (2, "north", "Cause 2."),
    ]
    assert all(entry["time"].endswith("+00:00") for entry in entries)


def test_a_cause_cannot_become_two_entries_or_hold_much(tmp_path) -> None:
    log = AuditLog(tmp_path / "log")
    log.write(1, "a\nb", 'One.\n{"round": 9}\u2028\x1b[31m' + "x" * 10_000)
    (line,) = (tmp_path / "log").read_text(encoding="utf-8").splitlines()
    entry = json.loads(line)
    assert entry["bank"] == "a b"
    assert len(entry["cause"]) == MAX_CAUSE
    assert entry["cause"].isprintable()


def test_half_a_line_of_a_killed_server_spoils_no_other(tmp_path) -> None:
    log = AuditLog(tmp_path / "log")
    log.write(1, "", "Before.")
    with log.path.open("a", encoding="utf-8") as file:
        file.write('{"round": 2, "ba')
    log.write(3, "", "After.")
    assert [entry["cause"] for entry in log.entries()] == ["Before.", "After."]


def test_a_log_that_was_never_written_is_empty(tmp_path) -> None:
    assert AuditLog(tmp_path / "log").entries() == []
