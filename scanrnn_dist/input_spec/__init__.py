"""What a step of a sequence holds, column by column, as one declaration: numbers, categories and times.

Standard library and numpy. What is computed of Arrow columns is `source/step_input.py`'s; one-hot vectors and embedding
tables are `encoder/step_input.py`'s.
"""

from scanrnn_dist.input_spec.columns import UNITS, UNKNOWN_ID, Category, Column, Number, Time
from scanrnn_dist.input_spec.declaration import InputSpec
