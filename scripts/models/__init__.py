"""`agerank models`: the versions of a lane, by hand. They are told to the store itself: neither process need run."""
