package rest_test

import (
	"encoding/json"
	"reflect"
	"strconv"
	"testing"
	"time"

	"berth/appliance/rest"
)

type inner struct {
	Since time.Time `json:"since"`
	Next  *inner    `json:"next"`
}

type argument struct {
	Name  string `path:"name"`
	On    bool   `query:"on" doc:"is it"`
	Small int8   `query:"small,required"`
	Page  *int64 `query:"page"`
	Other string
	Body  inner `body:",optional"`
}

func TestSet(t *testing.T) {
	t.Parallel()
	ps := rest.Parameters(reflect.TypeFor[argument]())
	if len(ps) != 5 || !ps[0].Required || ps[1].Required || !ps[2].Required || ps[4].Required || ps[4].In != "body" {
		t.Fatalf("%+v", ps)
	}
	for _, c := range []struct {
		parameter int
		text      string
		want      argument
		fault     string
	}{
		{0, "a b", argument{Name: "a b"}, ""},
		{0, "a\x00", argument{}, "name in path must be text"},
		{0, "\xff", argument{}, "name in path must be text"},
		{1, "true", argument{On: true}, ""},
		{1, "yes", argument{}, `on in query must be true or false, not "yes"`},
		{2, "-128", argument{Small: -128}, ""},
		{2, "128", argument{}, `small in query must be a number, not "128"`},
		{2, "", argument{}, `small in query must be a number, not ""`},
		{3, "7", argument{Page: new(int64(7))}, ""},
	} {
		var got argument
		err := ps[c.parameter].Set(reflect.ValueOf(&got).Elem(), c.text)
		if said := text(err); said != c.fault || err == nil && !reflect.DeepEqual(got, c.want) {
			t.Errorf("%d %q: %+v, %q", c.parameter, c.text, got, said)
		}
	}
}

func text(err error) string {
	if u, ok := err.(*rest.Unprocessable); ok {
		return u.Text
	}
	return ""
}

// Whatever strangers send is taken over as it is, or refused.
func FuzzSet(f *testing.F) {
	for _, s := range []string{"", "a", "-1", "true", "1e3", "\x00", "\xff", "99999999999999999999"} {
		f.Add(s)
	}
	ps := rest.Parameters(reflect.TypeFor[argument]())
	f.Fuzz(func(t *testing.T, s string) {
		var a argument
		v := reflect.ValueOf(&a).Elem()
		if ps[0].Set(v, s) == nil && (a.Name != s || !rest.IsText(s)) {
			t.Errorf("%q became %q", s, a.Name)
		}
		if ps[2].Set(v, s) == nil {
			if n, err := strconv.Atoi(s); err != nil || n != int(a.Small) {
				t.Errorf("%q became %d", s, a.Small)
			}
		}
		_, _ = ps[1].Set(v, s), ps[3].Set(v, s)
	})
}

type result struct {
	inner
	Names []string        `json:"names"`
	Raw   json.RawMessage `json:"raw,omitempty"`
	Bytes []byte          `json:"bytes,omitempty"`
	Share float64         `json:"share"`
	Map   map[string]int  `json:"map"`
	At    *moment         `json:"at"`
	Odd   struct {
		Count int `json:"count"`
	} `json:"odd"`
	Hidden string `json:"-"`
}

type moment struct{}

// The two forms that arrays have, what is required, and a type that holds itself.
func TestDescribe(t *testing.T) {
	t.Parallel()
	for nullable, want := range map[bool]string{
		false: `{"inner":{"properties":{"next":{"$ref":"#/components/schemas/inner"},"since":{"format":"date-time","type":"string"}},"required":["since"],"type":"object"},` +
			`"result":{"properties":{"at":{"format":"date-time","type":"string"},"bytes":{"contentEncoding":"base64","type":"string"},` +
			`"map":{"additionalProperties":{"format":"int64","type":"integer"},"type":"object"},"names":{"items":{"type":"string"},"type":"array"},"next":{"$ref":"#/components/schemas/inner"},` +
			`"odd":{"properties":{"count":{"format":"int64","type":"integer"}},"required":["count"],"type":"object"},"raw":{},"share":{"type":"number"},"since":{"format":"date-time","type":"string"}},` +
			`"required":["map","names","odd","share"],"type":"object"}}`,
		true: `{"inner":{"properties":{"next":{"$ref":"#/components/schemas/inner"},"since":{"format":"date-time","type":"string"}},"required":["since"],"type":"object"},` +
			`"result":{"properties":{"at":{"format":"date-time","type":"string"},"bytes":{"contentEncoding":"base64","type":"string"},` +
			`"map":{"additionalProperties":{"format":"int64","type":"integer"},"type":"object"},"names":{"items":{"type":"string"},"type":["array","null"]},"next":{"$ref":"#/components/schemas/inner"},` +
			`"odd":{"properties":{"count":{"format":"int64","type":"integer"}},"required":["count"],"type":"object"},"raw":{},"share":{"type":"number"},"since":{"format":"date-time","type":"string"}},` +
			`"required":["map","odd","share"],"type":"object"}}`,
	} {
		d := &rest.Describer{Nullable: nullable, Times: []reflect.Type{reflect.TypeFor[moment]()}, Requires: func(reflect.Type) bool { return true },
			Name: func(t reflect.Type) (string, string) { return t.Name(), t.String() }}
		d.Schema(reflect.TypeFor[[]*result]())
		if got, err := json.Marshal(d.Schemas()); err != nil || string(got) != want {
			t.Errorf("got  %s, %v\nwant %s", got, err, want)
		}
		operation := map[string]any{}
		d.Take(operation, rest.Parameters(reflect.TypeFor[argument]()))
		const takes = `{"parameters":[{"in":"path","name":"name","required":true,"schema":{"type":"string"}},{"description":"is it","in":"query","name":"on","required":false,"schema":{"type":"boolean"}},` +
			`{"in":"query","name":"small","required":true,"schema":{"format":"int64","type":"integer"}},{"in":"query","name":"page","required":false,"schema":{"format":"int64","type":"integer"}}],` +
			`"requestBody":{"content":{"application/json":{"schema":{"$ref":"#/components/schemas/inner"}}},"required":false}}`
		if got, err := json.Marshal(operation); err != nil || string(got) != takes {
			t.Errorf("got  %s, %v\nwant %s", got, err, takes)
		}
	}
	if got := rest.OperationID("GET", "/v2.0/a/{id}"); got != "get_v2_0_a_id" {
		t.Error(got)
	}
}
