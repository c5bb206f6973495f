from __future__ import annotations

from retsweep.train.state import State


def test_speed_leaves_out_the_first_step_of_each_process():
    state = State(tokens=1100, seconds=12.0, first_tokens=100, first_seconds=2.0)
    assert state.tokens_per_second == 100.0
    assert State(tokens=100, seconds=2.0, first_tokens=100, first_seconds=2.0).tokens_per_second == 50.0
    assert State().tokens_per_second == 0.0


def test_a_state_goes_through_a_checkpoint_unchanged():
    state = State(step=7, status="diverged@8", last_loss=0.1 + 0.2, above=3, fell=True)
    assert State(**state.as_dict()) == state
