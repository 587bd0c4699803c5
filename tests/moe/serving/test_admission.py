"""Who is let in next."""

from finlora.moe.serving.admission import Admission, AdmissionSettings, Waiting


def waiting(name: str, *, tenant: str = "", arrived: float = 0.0, cost: int = 10, experts=()) -> Waiting:
    return Waiting(name, tenant, arrived, cost, experts)


def names(ordered) -> list[str]:
    return [one.request_id for one in ordered]


def test_first_come_is_first_served():
    queue = [waiting(name) for name in "abc"]
    assert names(Admission().order(queue, 0.0, 4, lambda _: True)) == ["a", "b", "c"]


def test_requests_for_resident_experts_overtake_but_not_for_ever():
    queue = [waiting("a", experts=("cold",)), waiting("b", experts=("warm",)), waiting("c")]
    admission = Admission(AdmissionSettings(patience_seconds=2.0))
    is_warm = "warm".__eq__
    assert names(admission.order(queue, 1.0, 4, is_warm)) == ["b", "c", "a"]
    assert names(admission.order(queue, 3.0, 4, is_warm)) == ["a", "b", "c"]


def test_nothing_overtakes_beyond_the_window():
    queue = [waiting("a", experts=("cold",)), waiting("b", experts=("cold",)), waiting("c")]
    admission = Admission(AdmissionSettings(group_window=2))
    assert names(admission.order(queue, 0.0, 4, lambda _: False)) == ["a", "b", "c"]


def test_tenants_take_turns_by_tokens():
    queue = [*(waiting(f"big{i}", tenant="big", cost=30) for i in range(3)), waiting("small", tenant="small")]
    admission = Admission()
    for one in queue:
        admission.arrived(one)
    assert names(admission.order(queue, 0.0, 4, lambda _: True)) == ["big0", "small", "big1", "big2"]
    admission.admitted(queue[3])
    admission.admitted(queue[3])
    admission.admitted(queue[3])
    admission.admitted(queue[3])
    assert names(admission.order(queue, 0.0, 4, lambda _: True))[:2] == ["big0", "big1"]


def test_a_new_tenant_has_no_credit_for_the_time_before():
    admission = Admission()
    admission.arrived(waiting("a", tenant="old"))
    admission.admitted(waiting("a", tenant="old", cost=1000))
    admission.arrived(waiting("b", tenant="new"))
    assert admission.served["new"] == 1000
    admission.left(waiting("a", tenant="old"))
    assert list(admission.served) == ["new"]


def test_early_abort_drops_what_would_come_too_late():
    settings = AdmissionSettings(policy="abort", first_token_seconds=6.0, first_step_seconds=0.5)
    queue = [waiting("late", arrived=0.0), waiting("soon", arrived=1.0)]
    assert names(Admission(settings).too_late(queue, 5.6)) == ["late"]
    assert Admission().too_late(queue, 100.0) == []


def test_early_abort_serves_the_newest_while_more_come_than_fit():
    admission = Admission(AdmissionSettings(policy="abort"))
    queue = [waiting(name) for name in "abc"]
    assert names(admission.order(queue, 0.0, 2, lambda _: True)) == ["a", "b", "c"]
    for one in queue * 5:
        admission.arrived(one)
    admission.step()
    assert names(admission.order(queue, 0.0, 2, lambda _: True)) == ["c", "b", "a"]
