"""The one hook of the fault tests: the process kills itself at a named point, as `kill -9` would.

`LOCALMIM_FAULT=point` or `LOCALMIM_FAULT=point:step` turns it on; unset, it does nothing. Points: before_save (before a
checkpoint is begun), after_write (its data is in place, without a manifest), before_publish (its manifest is written
but not yet in place), in_step (before a training step), in_decode (before an image is decoded).
"""

import os
import signal


def crash_at(point: str, step: int | None = None) -> None:
    """Dies here by SIGKILL if `LOCALMIM_FAULT` names this point and, where it names one, this step."""
    wanted = os.environ.get("LOCALMIM_FAULT", "")
    if wanted and wanted in (point, f"{point}:{step}"):
        os.kill(os.getpid(), signal.SIGKILL)
