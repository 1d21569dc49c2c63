package segment

// Write is what Run does ten times a second.
func (s *Store) Write() error { return s.write() }
