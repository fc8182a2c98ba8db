"""Neural-collapse metrics of anybody's network and data, of the last layer and of those before."""

from ncbook.measure.callback import NCCallback
from ncbook.measure.loading import load_model
from ncbook.measure.measuring import Measured, measure
from ncbook.measure.request import PARAMETERS, asked, report
