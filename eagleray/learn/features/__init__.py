"""From canonical columns to a model's inputs: fitted on the training part, the same in serving.

An encoding says how one column enters a model; a block handles all columns of one encoding. Its
state is JSON and tensors, and is restored exactly. A row is encoded to the same bits alone and in a
batch; only the padding of tokens depends on the batch.
"""

from eagleray.learn.features import made as made
from eagleray.learn.features import own as own
from eagleray.learn.features import reference as reference
from eagleray.learn.features import several as several
from eagleray.learn.features.categories import UNKNOWN as UNKNOWN
from eagleray.learn.features.categories import Category as Category
from eagleray.learn.features.coded import UNMARKED as UNMARKED
from eagleray.learn.features.coded import Coded as Coded
from eagleray.learn.features.coded import Marks as Marks
from eagleray.learn.features.images import Image as Image
from eagleray.learn.features.matrix import Matrix as Matrix
from eagleray.learn.features.numbers import Number as Number
from eagleray.learn.features.texts import Text as Text
from eagleray.learn.features.transforms import Inputs as Inputs
from eagleray.learn.features.transforms import Items as Items
from eagleray.learn.features.transforms import Shape as Shape
from eagleray.learn.features.transforms import Transforms as Transforms
from eagleray.learn.features.vectors import Vector as Vector

Encoding = Number | Category | Coded | Text | Vector | Image
