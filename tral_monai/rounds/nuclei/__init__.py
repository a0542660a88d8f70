# SPDX-License-Identifier: Apache-2.0
"""Steps of a round whose samples are fields of view with nuclei."""
