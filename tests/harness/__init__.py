"""What the tests on real servers share: private servers, the lockstep process, waits, comparing."""
