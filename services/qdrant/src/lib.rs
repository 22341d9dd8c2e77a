//! Banks on Qdrant.
