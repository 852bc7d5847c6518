"""What is known of each slice and since when, in a Feast repository; vectors stay in their files."""
