"""The SavedModel: signatures, writing, verification."""
