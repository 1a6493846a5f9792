"""The fixtures of the swap's tests, which the tests that kill it use as well."""

from swap_fixtures import other_folder, shared_model, small_encoder, world  # noqa: F401
