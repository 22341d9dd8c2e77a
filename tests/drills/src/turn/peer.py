# The same turn in LangGraph: a model that answers at once, three tool calls one after the other, each step checkpointed.
# usage: peer.py DATABASE SYNCHRONOUS TURNS SESSIONS EACH
import json, sqlite3, statistics, sys, time
from concurrent.futures import ThreadPoolExecutor

from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, MessagesState, StateGraph

database, synchronous, turns, sessions, each = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6])
CALLS = 3


def model(state):
    results = sum(isinstance(message, ToolMessage) for message in state["messages"])
    if results == CALLS:
        return {"messages": [AIMessage("done")]}
    call = {"name": "retried", "args": {"turn": 1, "call": results}, "id": f"call_{results}", "type": "tool_call"}
    return {"messages": [AIMessage("", tool_calls=[call])]}


def tools(state):
    calls = state["messages"][-1].tool_calls
    return {"messages": [ToolMessage("done", tool_call_id=call["id"], name=call["name"]) for call in calls]}


def wants_tools(state):
    return "tools" if state["messages"][-1].tool_calls else END


graph = StateGraph(MessagesState)
graph.add_node("model", model)
graph.add_node("tools", tools)
graph.add_edge(START, "model")
graph.add_conditional_edges("model", wants_tools, ["tools", END])
graph.add_edge("tools", "model")

connection = sqlite3.connect(database, check_same_thread=False)
saver = SqliteSaver(connection)
saver.setup()
connection.execute(f"PRAGMA synchronous = {synchronous}")
runnable = graph.compile(checkpointer=saver)


def turn(thread):
    begun = time.perf_counter()
    config = {"configurable": {"thread_id": thread}}
    state = runnable.invoke({"messages": [HumanMessage("go")]}, config, durability="sync")
    assert state["messages"][-1].content == "done" and len(state["messages"]) == 2 + 2 * CALLS
    return time.perf_counter() - begun


for n in range(10):
    turn(f"warm-{n}")
alone = statistics.median(turn(f"alone-{n}") for n in range(turns))
begun = time.perf_counter()
with ThreadPoolExecutor(sessions) as pool:
    list(pool.map(lambda n: [turn(f"{n}-{m}") for m in range(each)], range(sessions)))
print(json.dumps({"seconds": alone, "per_second": sessions * each / (time.perf_counter() - begun)}))
