"""The reader of C++ that the house rules rely on."""

from __future__ import annotations

import pytest
from cpp_functions import Function, functions


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("int f() { return 1; }", ("f", 1, 0, 1)),
        ("int f(void) {\n}\n", ("f", 1, 0, 2)),
        (
            "\nvoid a::f(std::map<int, int> a, int (&b)[2], int c) const noexcept {\n    g(1, 2);\n}\n",
            ("a::f", 2, 3, 3),
        ),
        ("A::A(int x, int y) : x_(x), y_{y}, z_(f(x, y)) {\n}", ("A::A", 1, 2, 2)),
        ("int f() {\n    if constexpr (is_a<T>(1, 2)) {\n    }\n}", ("f", 1, 0, 4)),
        ("auto f(int a) -> std::vector<int> { if (a) { return {}; } return {1, 2}; }", ("f", 1, 1, 1)),
        ("template <typename T>\n__device__ void step(const T* rows, int n, float (&e)[4]) {\n}\n", ("step", 2, 3, 2)),
        ("void f(char c = '}', const char* s = \")}\") {  // }\n    /* } */\n}", ("f", 1, 2, 3)),
        ("A& A::operator=(A&& other) noexcept = default;\n~A() {\n}", ("~A", 2, 0, 2)),
        ('const char* s = R"(int g() {)";\nint f(int x = 1\'000) {\n}', ("f", 2, 1, 2)),
    ],
)
def test_a_function(text: str, expected: tuple[str, int, int, int]) -> None:
    assert list(functions(text)) == [Function(*expected)]


@pytest.mark.parametrize(
    "text",
    [
        "int f(int a, int b);",
        "for (int i = 0; i < n; ++i) { g(i); }",
        "#define F(a, b) \\\n    void f_##a(int b) { \\\n    }\n",
        "auto x = g(1, 2);\nstruct S { int a; };",
    ],
)
def test_what_is_none(text: str) -> None:
    assert list(functions(text)) == []
