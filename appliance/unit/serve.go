package unit

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"
)

// Serve serves one listener until ctx ends, then lets the requests that are under
// way finish for as long as grace, and cuts off what is left.
func Serve(ctx context.Context, srv *http.Server, l net.Listener, grace time.Duration) error {
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(l) }()
	select {
	case err := <-failed:
		return fmt.Errorf("cannot serve %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	rest, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	if err := srv.Shutdown(rest); err != nil {
		return srv.Close()
	}
	return nil
}
