"""The controlled comparison: recipes trained from one start on the same data, scored on questions that are easy and hard to say."""
