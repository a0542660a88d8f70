# SPDX-License-Identifier: Apache-2.0
"""What a run taught, read from its ledger: CSV files, three lines, and one self-contained HTML report."""
