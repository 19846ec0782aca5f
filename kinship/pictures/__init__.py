"""Pictures of matrices, profiles and family trees."""
