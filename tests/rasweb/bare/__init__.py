"""The platform with test tasks in place of the product's own loops and pages."""
