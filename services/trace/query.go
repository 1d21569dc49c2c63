package trace

import (
	"context"
	"strings"

	"github.com/jackc/pgx/v5"
	otel "go.opentelemetry.io/otel/trace"

	"berth/services/database"
)

// Queries traces a pool's statements (pgx.QueryTracer, pgx.BatchTracer). Nil for a
// nil Tracer: then pgx has none.
func (t *Tracer) Queries() database.Tracer {
	if t == nil {
		return nil
	}
	return queries{t}
}

// queries makes spans of statements that belong to one already: what polls in the
// background would be a trace each time.
type queries struct{ tracer *Tracer }

type queryKey struct{}

func (q queries) begin(ctx context.Context, name, sql string) context.Context {
	if !otel.SpanContextFromContext(ctx).IsSampled() {
		return ctx
	}
	ctx, span := q.tracer.start(ctx, name, otel.SpanKindClient)
	span.String("db.system.name", "postgresql")
	span.String("db.query.text", sql)
	return context.WithValue(ctx, queryKey{}, span)
}

func end(ctx context.Context, err error) {
	span, _ := ctx.Value(queryKey{}).(*Span)
	if span == nil || !span.span.IsRecording() {
		return
	}
	if code := database.Code(err); code != "" {
		span.String("db.response.status_code", code)
	}
	if err != nil {
		span.Fail("the statement failed")
	}
	span.span.End()
}

func (q queries) TraceQueryStart(ctx context.Context, _ *pgx.Conn, d pgx.TraceQueryStartData) context.Context {
	return q.begin(ctx, operation(d.SQL), d.SQL)
}

func (q queries) TraceQueryEnd(ctx context.Context, _ *pgx.Conn, d pgx.TraceQueryEndData) {
	end(ctx, d.Err)
}

func (q queries) TraceBatchStart(ctx context.Context, _ *pgx.Conn, d pgx.TraceBatchStartData) context.Context {
	if d.Batch == nil {
		return ctx
	}
	var texts []string
	for _, b := range d.Batch.QueuedQueries {
		texts = append(texts, b.SQL)
	}
	return q.begin(ctx, "BATCH", strings.Join(texts, ";\n"))
}

func (q queries) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}

func (q queries) TraceBatchEnd(ctx context.Context, _ *pgx.Conn, d pgx.TraceBatchEndData) {
	end(ctx, d.Err)
}

// operation is a statement's first word.
func operation(sql string) string {
	word, _, _ := strings.Cut(strings.TrimSpace(sql), " ")
	switch word = strings.ToUpper(strings.TrimSpace(word)); word {
	case "SELECT", "INSERT", "UPDATE", "DELETE", "WITH", "BEGIN", "COMMIT", "ROLLBACK", "LISTEN", "SET", "SAVEPOINT":
		return word
	}
	return "SQL"
}
