/* What observe/http.c serves, asked over sockets; the metrics' and the page's forms. */
#include "observe/http.h"
#include "observe/page.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <sys/socket.h>
#include <unistd.h>

static bool well = true;

static bool healthy(void *ctx, char *why, size_t size)
{
    snprintf(why, size, "it is ill");
    return well;
}

static void hello(void *ctx, struct buf *out)
{
    buf_adds(out, "[\"hello\"]");
}

static struct http *open_server(int *port)
{
    struct http_options o = {"127.0.0.1:0", healthy, hello, NULL, NULL};
    struct http *h = NULL;
    struct err e = {0};
    char url[100];

    assert_int_equal(http_open(&o, &h, &e), 0);
    http_url(h, url, sizeof(url));
    assert_int_equal(sscanf(url, "http://127.0.0.1:%d/", port), 1);
    return h;
}

static int dial(int port)
{
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_port = htons((uint16_t)port),
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval limit = {.tv_sec = 5};
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    return fd;
}

/* Reads until the text is there; false: the end, or too long without it. */
static bool read_until(int fd, char *out, size_t size, const char *text)
{
    size_t len = strlen(out);

    while (!strstr(out, text)) {
        ssize_t n = recv(fd, out + len, size - len - 1, 0);

        if (n <= 0)
            return false;
        len += (size_t)n;
        out[len] = '\0';
    }
    return true;
}

static const char *ask(int port, const char *line, const char *host)
{
    static char answer[20000];
    char request[500];
    int fd = dial(port);

    snprintf(request, sizeof(request), "%s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", line,
             host);
    assert_int_equal(send(fd, request, strlen(request), 0), (ssize_t)strlen(request));
    answer[0] = '\0';
    while (read_until(fd, answer, sizeof(answer), "no such text"))
        ;
    close(fd);
    return answer;
}

static void test_answers(void **state)
{
    int port;
    struct http *h = open_server(&port);

    assert_non_null(strstr(ask(port, "GET /metrics", "localhost"), "HTTP/1.1 503"));
    http_publish(h, HTTP_METRICS, "lockstep_up 1\n", 14);
    assert_non_null(strstr(ask(port, "GET /metrics", "localhost"), "\r\n\r\nlockstep_up 1\n"));
    assert_non_null(strstr(ask(port, "GET /healthz", "localhost"), "HTTP/1.1 200"));
    well = false;
    assert_non_null(strstr(ask(port, "GET /healthz", "localhost"), "HTTP/1.1 503"));
    assert_non_null(strstr(ask(port, "GET /healthz", "localhost"), "\r\n\r\nit is ill\n"));
    well = true;
    assert_non_null(strstr(ask(port, "GET /x", "localhost"), "HTTP/1.1 404"));
    assert_non_null(strstr(ask(port, "PUT /", "localhost"), "HTTP/1.1 405"));
    assert_non_null(strstr(ask(port, "GET /healthz", "evil.example"), "HTTP/1.1 421"));
    assert_non_null(strstr(ask(port, "HEAD /", "127.0.0.1:1"), "HTTP/1.1 200"));
    assert_non_null(strstr(ask(port, "GET /wait", "localhost"), "HTTP/1.1 400"));
    assert_non_null(strstr(ask(port, "GET /wait?position=1&timeout_ms=1x", "localhost"), " 400"));
    assert_non_null(strstr(ask(port, "GET /wait?position=1&of=me", "localhost"), " 400 "));
    assert_non_null(strstr(ask(port, "GET /position", "evil.example"), "HTTP/1.1 421"));
    /* This one has nobody to ask a server. */
    assert_non_null(strstr(ask(port, "GET /position", "localhost"), "HTTP/1.1 503"));
    http_close(h);
}

static int listen_for_events(int port)
{
    static const char request[] = "GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n";
    int fd = dial(port);

    assert_int_equal(send(fd, request, sizeof(request) - 1, 0), sizeof(request) - 1);
    return fd;
}

static void test_events(void **state)
{
    char got[5000] = "";
    int port;
    struct http *h = open_server(&port);
    int fd = listen_for_events(port);

    assert_true(read_until(fd, got, sizeof(got), "event: hello\ndata: [\"hello\"]\n\n"));
    http_publish(h, HTTP_EVENT, "{\"n\":1}", 7);
    assert_true(read_until(fd, got, sizeof(got), "data: {\"n\":1}\n\n"));
    http_publish(h, HTTP_EVENT, "{\"n\":2}", 7);
    assert_true(read_until(fd, got, sizeof(got), "data: {\"n\":2}\n\n"));
    /* Closing does not wait for whoever listens. */
    http_close(h);
    assert_false(read_until(fd, got, sizeof(got), "no such text"));
    close(fd);
}

static void test_bounds(void **state)
{
    int fds[HTTP_LISTENERS + 1];
    char got[HTTP_LISTENERS + 1][4000];
    int port;
    struct http *h = open_server(&port);

    for (size_t i = 0; i < HTTP_LISTENERS + 1; i++) {
        fds[i] = listen_for_events(port);
        got[i][0] = '\0';
        assert_true(read_until(fds[i], got[i], sizeof(got[i]), "\r\n"));
        assert_non_null(strstr(got[i], i < HTTP_LISTENERS ? " 200 " : " 503 "));
    }
    /* The others are still answered. */
    assert_non_null(strstr(ask(port, "GET /healthz", "localhost"), "HTTP/1.1 200"));
    for (size_t i = 0; i < HTTP_LISTENERS + 1; i++)
        close(fds[i]);
    http_close(h);
}

static void test_address(void **state)
{
    struct http_options o = {"127.0.0.1:0", healthy, hello, NULL, NULL};
    struct http *second = NULL;
    struct err e = {0};
    char address[40];
    int port;
    struct http *h = open_server(&port);

    snprintf(address, sizeof(address), "127.0.0.1:%d", port);
    o.listen = address;
    assert_int_equal(http_open(&o, &second, &e), -1);
    assert_non_null(strstr(e.msg, "Address already in use"));
    o.listen = "nowhere.invalid:80";
    assert_int_equal(http_open(&o, &second, &e), -1);
    http_close(h);
}

static void test_hosts(void **state)
{
    static const char *const local[] = {"localhost",    "LOCALHOST:8650", "127.0.0.1",
                                        "127.1.2.3:80", "[::1]",          "[::1]:8650"};
    static const char *const strange[] = {
        "",           "evil.example",         "10.0.0.1",
        "[::2]",      "127.0.0.1.evil.com",   "localhost.evil.com",
        "[::1].evil", "evil.com:127.0.0.1:80"};

    for (size_t i = 0; i < sizeof(local) / sizeof(local[0]); i++)
        assert_true(http_host_is_local(local[i]));
    for (size_t i = 0; i < sizeof(strange) / sizeof(strange[0]); i++)
        assert_false(http_host_is_local(strange[i]));
    assert_false(http_host_is_local(NULL));
}

static const struct page_about about = {
    "sh\"op", "run", "postgresql://a/b", "mysql://c/d", "postgres", "mysql", "files"};

static void test_metrics(void **state)
{
    struct observed_table tables[] = {
        {.name = "s.a\\b\n", .lane = "parked", .reason = "x", .rows = 7, .bytes = UNKNOWN_COUNT},
        {.name = "s.c", .lane = "following", .rows = UNKNOWN_COUNT, .bytes = 9}};
    struct observation o = {.phase = "following",
                            .ntables = 2,
                            .tables = tables,
                            .lag_bytes = UNKNOWN_COUNT,
                            .lag_seconds = -1,
                            .retained_bytes = 5,
                            .journal_bytes = UNKNOWN_COUNT,
                            .journal_records = UNKNOWN_COUNT,
                            .changes = UNKNOWN_COUNT,
                            .rate = UNKNOWN_COUNT};
    struct buf text;

    buf_init(&text, 1 << 16);
    metrics_render(&about, &o, &text);
    assert_non_null(strstr(text.data, "lockstep_up{migration=\"sh\\\"op\"} 1\n"));
    assert_non_null(strstr(text.data, "lockstep_phase{phase=\"following\"} 1\n"));
    assert_non_null(strstr(text.data, "lockstep_lanes{state=\"parked\"} 1\n"));
    assert_non_null(strstr(text.data, "lockstep_lanes{state=\"loading\"} 0\n"));
    assert_non_null(strstr(text.data, "lockstep_table_rows_copied{table=\"s.a\\\\b\\n\"} 7\n"));
    assert_non_null(strstr(text.data, "\nlockstep_retained_bytes 5\n"));
    /* Unknown is left out. */
    assert_null(strstr(text.data, "lockstep_lag_bytes"));
    assert_null(strstr(text.data, "lockstep_lag_seconds"));
    assert_null(strstr(text.data, "rows_copied{table=\"s.c\"}"));
    buf_reset(&text, 0);
    metrics_render(&about, NULL, &text);
    assert_non_null(strstr(text.data, "lockstep_up{migration=\"sh\\\"op\"} 0\n"));
    assert_null(strstr(text.data, "lockstep_phase"));
    buf_release(&text);
}

static void test_page_tables(void **state)
{
    struct observed_table tables[PAGE_TABLES + 50];
    struct observation o = {.phase = "following", .ntables = PAGE_TABLES + 50, .tables = tables};
    json_t *page;
    json_t *list;

    for (size_t i = 0; i < PAGE_TABLES + 50; i++)
        tables[i] = (struct observed_table){.name = "s.t", .lane = "following"};
    tables[PAGE_TABLES + 20].lane = "parked";
    page = page_json(&about, &o, NULL);
    list = json_object_get(page, "tables");
    assert_int_equal(json_array_size(list), PAGE_TABLES);
    assert_string_equal(json_string_value(json_object_get(json_array_get(list, 0), "lane")),
                        "parked");
    assert_int_equal(json_integer_value(json_object_get(json_object_get(page, "lanes"), "parked")),
                     1);
    assert_null(json_object_get(json_object_get(page, "status"), "tables"));
    json_decref(page);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers),     cmocka_unit_test(test_events),
        cmocka_unit_test(test_bounds),      cmocka_unit_test(test_address),
        cmocka_unit_test(test_hosts),       cmocka_unit_test(test_metrics),
        cmocka_unit_test(test_page_tables),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
