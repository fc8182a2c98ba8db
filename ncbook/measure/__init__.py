"""Neural-collapse metrics of anybody's network and data, of the last layer and of those before."""

from ncbook.measure.callback import NCCallback
from ncbook.measure.measuring import Measured, measure
