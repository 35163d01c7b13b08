from .executors import Advance as Advance
from .executors import Event as Event
from .executors import Executor as Executor
from .executors import InProcess as InProcess
from .executors import ProcessPool as ProcessPool
from .figures import draw as draw
from .fingerprint import fingerprint as fingerprint
from .ledger import Ledger as Ledger
from .measure import PaperResult as PaperResult
from .measure import measure as measure
from .measure import result as result
from .report import report as report
from .results import claim_figure as claim_figure
from .results import claim_json as claim_json
from .results import record_results as record_results
from .results import recorded as recorded
from .results import recorded_badge as recorded_badge
from .tasks import Outcome as Outcome
from .tasks import Task as Task
from .tasks import plan as plan
from .verdicts import ClaimResult as ClaimResult
from .verdicts import Verdict as Verdict
from .verdicts import badge as badge
from .verdicts import judge as judge
from .verdicts import judge_values as judge_values

__all__ = [
    "Advance",
    "ClaimResult",
    "Event",
    "Executor",
    "InProcess",
    "Ledger",
    "Outcome",
    "PaperResult",
    "ProcessPool",
    "Task",
    "Verdict",
    "badge",
    "claim_figure",
    "claim_json",
    "draw",
    "fingerprint",
    "judge",
    "judge_values",
    "measure",
    "plan",
    "record_results",
    "recorded",
    "recorded_badge",
    "report",
    "result",
]
