"""Results: rates, tables, records, figures."""
