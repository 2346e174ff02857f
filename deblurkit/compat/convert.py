"""`deblurkit convert-config`: another tool's options file as the text of a native one."""

from __future__ import annotations

from pathlib import Path

from deblurkit.compat.options import translate
from deblurkit.compat.sections import Translation
from deblurkit.compat.simdeblur import is_simdeblur, translate_simdeblur
from deblurkit.errors import OptionsError
from deblurkit.yaml_source import dump_yaml, read_source


def convert(path: str | Path) -> str:
    """The text of a native options file, headed by comments with what could not be carried over.

    What is carried over is not checked here: `deblurkit train -opt FILE --dry-run` does that.

    Raises:
        OptionsError: the file cannot be read, is native already, or no tool's that is known here.
    """
    source = read_source(path)
    if "schema" in source.values:
        raise OptionsError(f"{path}: is in deblurkit's own form already (it has the line `schema`)")
    if is_simdeblur(source):
        translation = Translation(source)
        translate_simdeblur(translation, Path(path).stem)
    else:
        translation = translate(source, path)
    lost = [f"{'.'.join(where)}: {text}" for where, text in translation.problems]
    lines = [f"Made from {Path(path).name} by deblurkit convert-config."]
    if lost:
        lines += ["Could not be carried over; mend by hand:", *(f"  {text}" for text in lost)]
    if translation.ignored:
        lines += ["Means nothing here and was left out:", *(f"  {text}" for text in translation.ignored)]
    head = "".join(f"# {line}\n" for text in lines for line in text.splitlines())
    return head + dump_yaml(translation.target.values)
