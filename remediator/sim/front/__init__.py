"""The simulated server on a real socket, as far as kubectl needs it: HTTP, tables, discovery."""

from __future__ import annotations
