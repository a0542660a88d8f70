# SPDX-License-Identifier: Apache-2.0
"""Fields of view with nuclei: how they are cut, divided, listed and read, and what a detector found in them."""
