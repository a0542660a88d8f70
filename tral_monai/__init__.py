# SPDX-License-Identifier: Apache-2.0
"""Active learning for computational pathology on MONAI: decide what a pathologist should label next.

The rooms of the package are imported when they are needed (``tral_monai.slides``, ``tral_monai.rounds``, ...): this
module loads neither torch nor cuCIM nor MONAI Label.
"""

__version__ = "0.1.0"
