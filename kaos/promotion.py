"""Whether a model that a schedule trained goes to its endpoint, and who or what decided that."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from kaos.endpoint import ModelPin
from kaos.gate import Verdict
from kaos.lineage import AirflowRun
from kaos.value import Value


class Proposal(Value):
    """The best model of a job, as its condition sees it.

    :param author: who made the schedule
    :param metric: that chose the model among the job's
    :param trial: its index
    :param serving: the model that served then, None if none did
    :param revision: of the endpoint, with that model
    """

    job_id: str
    schedule: str
    author: str
    endpoint: str
    condition: str
    metric: str
    model: ModelPin
    trial: int
    serving: ModelPin | None
    revision: int | None
    verdict: Verdict

    @property
    def accepted(self) -> bool:
        """Tell whether the model may be deployed, as far as the condition goes."""
        return self.verdict.holds and not self.serves

    @property
    def serves(self) -> bool:
        """Tell whether it is the very model that serves already."""
        return self.serving is not None and self.serving.digest == self.model.digest


class Answer(Value):
    """What a person said.

    :param by: name of the person, empty if nobody answered in time
    """

    approved: bool
    by: str
    at: datetime


class Decision(Value):
    """What became of a proposal; it never changes.

    :param outcome: ``promoted``: it was given to the endpoint as its next revision
    :param by: ``schedule NAME``, or the person who was asked
    :param answer: what that person said
    :param reason: in words
    """

    version: Literal[1] = 1
    kind: Literal["decision"] = "decision"
    proposal: Proposal
    outcome: Literal["promoted", "kept out", "rejected"]
    by: str
    answer: Answer | None = None
    reason: str
    airflow: AirflowRun
    decided_at: datetime


def decide(proposal: Proposal, answer: Answer | None, airflow: AirflowRun, now: datetime) -> Decision:
    """Return the decision on a proposal.

    :param answer: of the person who was asked, if one was
    """
    by, reason = f"schedule {proposal.schedule}", proposal.verdict.reason
    outcome: Literal["promoted", "kept out", "rejected"] = "promoted" if proposal.accepted else "kept out"
    if proposal.verdict.holds and proposal.serves:
        reason = f"{proposal.model.model_id} serves already"
    if proposal.accepted and answer is not None:
        by = answer.by or by
        outcome = "promoted" if answer.approved else "rejected"
        if not answer.approved and not answer.by:
            reason = f"nobody answered in time; {reason}"
    return Decision(
        proposal=proposal,
        outcome=outcome,
        by=by,
        answer=answer,
        reason=reason,
        airflow=airflow,
        decided_at=now,
    )
