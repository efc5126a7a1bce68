"""The HTTP API for programs, at ``/api/v1``; see docs/api.md.

Why it is as it is: docs/decisions.md, "Doors for programs".
"""
