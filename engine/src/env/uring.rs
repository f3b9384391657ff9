//! The environment on glommio.
