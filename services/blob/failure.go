package blob

import (
	"context"
	"errors"
	"strings"

	"github.com/aws/aws-sdk-go/aws/awserr"
	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
	"golang.org/x/sys/unix"

	"berth/appliance/fault"
)

// failure turns what a driver says into a fault. do is what could not be done.
func (s *Store) failure(err error, do string) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	if _, ok := errors.AsType[*fault.Error](err); ok {
		return err
	}
	// distribution's wrapper does not unwrap.
	if wrapped, ok := errors.AsType[storagedriver.Error](err); ok && wrapped.Detail != nil {
		err = wrapped.Detail
	}
	switch {
	case isNotFound(err):
		return fault.Wrap(fault.NotFound, err, "the blob's bytes are missing from the store")
	case isFull(err):
		return fault.Wrap(fault.NoSpace, err, "the blob store is full").
			WithHint("delete artifacts or let the administrator enlarge the storage, then push again")
	case s.files == nil:
		return fault.Wrap(fault.Unavailable, err, "the object store cannot %s", do).
			WithHint("try again; if it lasts, check the object store and its settings")
	}
	return fault.Wrap(fault.Internal, err, "the blob store cannot %s", do).
		WithHint("the server's log has the cause; check the data disk")
}

func isNotFound(err error) bool {
	_, ok := errors.AsType[storagedriver.PathNotFoundError](err)
	return ok
}

// isFull knows a full disk, an exceeded quota, and what object stores say then.
func isFull(err error) bool {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return true
	}
	answer, ok := errors.AsType[awserr.Error](err)
	if !ok {
		return false
	}
	code := answer.Code()
	return strings.Contains(code, "QuotaExceeded") || strings.HasSuffix(code, "StorageFull") || code == "InsufficientStorage"
}
