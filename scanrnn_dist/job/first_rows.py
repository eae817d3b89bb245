"""What the first rows of a planned source say of all: features per step. Opens files, and decodes.

How a unit is decoded is `source/decode.py`'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Protocol

import numpy as np

from scanrnn_dist.errors import ConfigError, DataError, LayoutError, UnreadableError
from scanrnn_dist.input_spec import InputSpec
from scanrnn_dist.source import (
    Filter,
    Layout,
    Source,
    Unit,
    Units,
    check_columns,
    first_step_features,
)


class Planned(Protocol):
    """A source, cut into units: a `Plan` is such."""

    @property
    def source(self) -> Source:
        """Its files."""

    @property
    def units(self) -> Units:
        """Which rows make which part."""

    @property
    def layout(self) -> Layout:
        """How its sequences stand in its columns."""


def in_features_of(plan: Planned, matches: Filter | None = None) -> int:
    """Features per step, `D`: from the column's type, or from the first step of a row that matches a filter.

    Where no such row has a step, from the first step that there is.

    Raises:
        ConfigError: the source has no rows.
        LayoutError: none of its sequences has a step that is not null.
    """
    fixed = plan.layout.width(plan.source.schema)
    if fixed is not None:
        return fixed
    if not plan.source.rows:
        raise ConfigError(
            "The source has no rows, so the number of features per step is unknown. Give --encoder FILE, which "
            "tells it."
        )
    features = None
    if matches is not None:
        with suppress(UnreadableError):  # what can be read decides
            features = _first_step_features(plan, matches, _sure_first(plan.units))
    if features is None:
        features = _first_step_features(plan, None, _sure_first(plan.units))
    if features is None:
        raise LayoutError(
            f"None of the {plan.source.rows:,} sequences of {plan.layout.described} has a step that is not null, and "
            "its type does not say how many features a step has; expected at least one such step. Choose an encoder "
            "(--encoder), which tells how many."
        )
    return features


def layout_with_width(plan: Planned, matches: Filter | None, input: InputSpec) -> Layout:
    """The layout, saying how many features a step has, as the first step that matches.

    So each reader of a share takes the same rows, whichever it begins with. As it is where no step can be read, and
    where names or types tell.

    Raises:
        ConfigError: that step does not have what an input names.
    """
    layout, schema, features = plan.layout, plan.source.schema, None
    if layout.width(schema) is not None:
        return layout
    with suppress(DataError):  # the job tells of it
        features = _first_step_features(plan, matches, plan.units)
    if features is None:
        return layout
    try:
        check_columns(input, layout.feature_names(schema, features))
    except ConfigError as error:
        raise ConfigError(
            f"{error} The first step has no others. If it should have more, say how many with --in-features N."
        ) from None
    return layout.with_width(features)


def _first_step_features(plan: Planned, matches: Filter | None, units: Iterable[Unit]) -> int | None:
    """Features of the first step, in the order of these units, of a row that matches."""
    unread: UnreadableError | None = None
    for unit in units:
        try:
            features = first_step_features(plan.source, unit, plan.layout, matches)
        except UnreadableError as error:  # the job tells of it, or sets it aside
            unread = unread or error
            continue
        if features is not None:
            return features
    if unread is not None:
        raise unread
    return None


def _sure_first(units: Units) -> Iterator[Unit]:
    """The units that must hold a step, then the others."""
    # More values than rows: a step is there. As many as rows: maybe, since an empty list counts one.
    is_sure = units.values > units.rows
    # Where a column holds other lists too, of which nothing is read, the values may be theirs.
    for index in [*np.flatnonzero(is_sure), *np.flatnonzero(~is_sure)]:
        yield units[index]
