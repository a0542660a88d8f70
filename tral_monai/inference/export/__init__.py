# SPDX-License-Identifier: Apache-2.0
"""A finished model as a folder that runs elsewhere: a MONAI bundle, with the network in other formats beside it."""
