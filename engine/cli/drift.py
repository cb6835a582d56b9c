"""`runbook drift`: what moved in an environment since its last deploy, and who moved it."""

from __future__ import annotations

from engine.cli import options as o
from engine.cli.opening import journal_events, opened
from engine.cli.output import Output
from engine.core.drift import drifted, last_deploy
from engine.core.history import runs
from engine.errors import RefusedError


@o.speaking
def drift(output: Output, environment: o.Environment) -> int:
    """What moved since the last deploy, and who moved it. Changes nothing; exit 2 when something did.

    Measured against the inputs that deploy kept, so an edit of the working tree is no drift.
    """
    from engine.report.drift import drift_document, drift_lines
    from engine.run.planner import make_plan

    views = runs(journal_events())
    view = last_deploy(views.values(), environment)
    if view is None:
        raise RefusedError(
            f"no finished deploy of {environment} in this journal: nothing to have drifted from.\n"
            f"  begin   runbook deploy {environment}"
        )
    with opened(output, environment, view=view, no_input=True) as work:
        work.stop_if_asked("opening the deploy's kept inputs")
        work.console.doing(f"reading what run {view.id} left")
        session = work.session
        names = {s.id: s.register for s in session.runbook.steps() if s.register}
        plan = make_plan(session, view.registered(names))
        kinds = {name: action.kind for name, action in session.planner.actions.items()}
        actions = {s.id: s.action for s in session.runbook.steps()}
        moved = drifted(plan, actions, kinds)
        work.console.close()
        output.answer(drift_document(view, plan, moved), drift_lines(view, plan, moved, actions, width=output.width))
        return 2 if moved else 0
