"""What every answer has in common: errors in one shape, a version header, an audit record."""
