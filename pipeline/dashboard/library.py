"""The charts' library (Vega, Vega-Lite, Vega-Embed) as one script, from an installed package: nothing is fetched."""

from __future__ import annotations

from functools import cache

from pipeline.errors import UsageError

_EXPORTS = "window.vegaEmbed = vegaEmbed;"


@cache
def bundle_library() -> str:
    """Return the script; it takes a second or two to put together. Raises UsageError where the package is missing."""
    try:
        import vl_convert
    except ImportError as error:
        raise UsageError(
            "the dashboard's charts need the package vl-convert-python: pip install 'extend-pipeline[dashboard]', or "
            "pip install vl-convert-python"
        ) from error
    return vl_convert.javascript_bundle(_EXPORTS)


def name_library() -> str:
    """Return the library's name and version, and whose it is, as its licence asks."""
    import vl_convert

    vega, lite = vl_convert.get_vega_version(), vl_convert.get_vegalite_versions()[-1]
    return f"Vega {vega} and Vega-Lite {lite}, © University of Washington Interactive Data Lab, BSD-3-Clause"
