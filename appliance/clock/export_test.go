package clock

import "time"

// TestAt is Test for a server at another port.
var TestAt = test

// ReadAnswer reads an answer to a question with this cookie that was sent a second
// before got.
func ReadAnswer(cookie [8]byte, b []byte, got time.Time) (Answer, error) {
	return question{cookie, got.Add(-time.Second)}.read(b, got)
}
