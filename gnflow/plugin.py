"""All names that a plug-in needs, in one module that does not import torch. See docs/plugins.md.

A kind is a class derived from one of the five bases, and the function that its `factory` names. gnflow's own
kinds use the same classes and types.
"""

from gnflow.data.sources.opened import Opened as Opened
from gnflow.data.sources.opened import Ready as Ready
from gnflow.data.sources.opened import from_texts as from_texts
from gnflow.errors import DataError as DataError
from gnflow.errors import EnvironmentProblem as EnvironmentProblem
from gnflow.metrics.protocol import Metric as Metric
from gnflow.metrics.protocol import Moment as Moment
from gnflow.metrics.protocol import Subject as Subject
from gnflow.models.model import Model as Model
from gnflow.models.model import Stage as Stage
from gnflow.models.model import Weight as Weight
from gnflow.objective import Metrics as Metrics
from gnflow.objective import Objective as Objective
from gnflow.objective import Params as Params
from gnflow.objective import Scalar as Scalar
from gnflow.objective import Tokens as Tokens
from gnflow.optim.decay import add_decay as add_decay
from gnflow.optim.decay import find_decay as find_decay
from gnflow.records import Status as Status
from gnflow.records import Step as Step
from gnflow.records import TrackedRun as TrackedRun
from gnflow.records import Tracker as Tracker
from gnflow.spec.base import Count as Count
from gnflow.spec.base import Fraction as Fraction
from gnflow.spec.base import Listed as Listed
from gnflow.spec.base import Name as Name
from gnflow.spec.base import Path as Path
from gnflow.spec.base import Rate as Rate
from gnflow.spec.base import Spec as Spec
from gnflow.spec.base import Unit as Unit
from gnflow.spec.base import refuse as refuse
from gnflow.spec.data import SourceKind as SourceKind
from gnflow.spec.model import ModelKind as ModelKind
from gnflow.spec.rules import Beta as Beta
from gnflow.spec.rules import Cautious as Cautious
from gnflow.spec.rules import Decay as Decay
from gnflow.spec.rules import FirstOrder as FirstOrder
from gnflow.spec.rules import MatrixMethod as MatrixMethod
from gnflow.spec.rules import WeightDecay as WeightDecay
from gnflow.spec.tracking import TrackerKind as TrackerKind
from gnflow.spec.training import MetricKind as MetricKind
from gnflow.transform import Collect as Collect
from gnflow.transform import Curvature as Curvature
from gnflow.transform import Fisher as Fisher
from gnflow.transform import Schedule as Schedule
from gnflow.transform import Signals as Signals
from gnflow.transform import Transform as Transform
from gnflow.transform import make_counter as make_counter
from gnflow.transform import make_rate as make_rate
