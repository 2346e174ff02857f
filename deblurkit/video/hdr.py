"""HDR10's static metadata: how bright and colourful the display was that the video was graded on (SMPTE ST 2086)."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from av import VideoFrame

#: Encoders that write it.
HDR_ENCODERS = ("libx265", "libsvtav1")


@dataclass(frozen=True)
class StaticHDR:
    """What the first frame says.

    Attributes:
        primaries: x and y of red, green, blue and white (CIE 1931).
        luminance: least and most, candela per square metre.
        light: brightest pixel and brightest frame on average (CTA-861.3), in the same unit.
    """

    primaries: tuple[Fraction, ...] = ()
    luminance: tuple[Fraction, ...] = ()
    light: tuple[int, ...] = ()


def static_hdr(frame: VideoFrame) -> StaticHDR:
    """The metadata of a decoded frame; empty where it has none. (HDR that changes from frame to frame is not read.)"""
    primaries: tuple[Fraction, ...] = ()
    luminance: tuple[Fraction, ...] = ()
    light: tuple[int, ...] = ()
    entries: Any = frame.side_data  # typed as a dict of motion vectors only
    for entry in entries:
        if entry.type.name == "MASTERING_DISPLAY_METADATA":  # AVMasteringDisplayMetadata
            numbers = struct.unpack("=22i", bytes(entry)[:88])
            values = [
                Fraction(a, b) if b else Fraction(0) for a, b in zip(numbers[:20:2], numbers[1:20:2], strict=True)
            ]
            primaries = tuple(values[:8]) if numbers[20] else ()
            luminance = tuple(values[8:]) if numbers[21] else ()
        elif entry.type.name == "CONTENT_LIGHT_LEVEL":  # AVContentLightMetadata
            light = struct.unpack("=2I", bytes(entry)[:8])
    return StaticHDR(primaries, luminance, light)


def with_static_hdr(encoder: str, options: Mapping[str, str], hdr: StaticHDR) -> dict[str, str]:
    """The options of an encoder, and what it needs to write the metadata; those of others are left as they are."""
    if encoder == "libx265":  # chromaticity in steps of 1/50000, luminance of 1/10000
        key, display, light, units = "x265-params", "master-display", "max-cll", (50000, 10000)
    elif encoder == "libsvtav1":
        key, display, light, units = "svtav1-params", "mastering-display", "content-light", (1, 1)
    else:
        return dict(options)
    added = []
    if hdr.primaries and hdr.luminance:
        places = [_number(value * units[0], units[0]) for value in hdr.primaries]
        named = dict(zip(("R", "G", "B", "WP"), zip(places[::2], places[1::2], strict=True), strict=True))
        least, most = (_number(value * units[1], units[1]) for value in hdr.luminance)
        parts = [f"{name}({named[name][0]},{named[name][1]})" for name in ("G", "B", "R", "WP")]
        added.append(f"{display}={''.join(parts)}L({most},{least})")
    if hdr.light:
        added.append(f"{light}={hdr.light[0]},{hdr.light[1]}")
    return {**options, key: ":".join([*filter(None, [options.get(key)]), *added])} if added else dict(options)


def _number(value: Fraction, unit: int) -> str:
    return str(round(value)) if unit > 1 else f"{float(value):.5f}"
