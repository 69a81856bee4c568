"""What a member does in each phase of a statistics job, inside its vault, beside what every star has.

::

    agree    columns and survival times are read
    measure  sums over all parties' rows; only the coordinator sees them, and tells what stands for enough patients
"""

from __future__ import annotations
