"""Files that people write: read with line and column, checked, and the schemas that say how."""
