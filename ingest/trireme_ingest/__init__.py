"""Events of users, from Redis Streams or files, into the records that the feature store reads."""
