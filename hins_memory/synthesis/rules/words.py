"""Tables of words: first names, verb forms, everyday things by class, synonyms. A test keeps them sound."""

from __future__ import annotations

__all__ = ["CLASS_WORDS", "FEMALE", "MALE", "PARTICIPLES", "PAST_FORMS", "SYNONYMS"]


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _pairs(text: str) -> dict[str, str]:
    return dict(pair.split(":") for pair in text.split())


#: First names for invented speakers.
FEMALE = _words(
    "Adaeze Alma Amina Anja Astrid Beatriz Bianca Brenda Camille Carla Chiara Cora Dalia Daphne Delia Dorothy Edith "
    "Elena Elise Esther Fatima Fiona Freya Gloria Greta Hana Hannah Heidi Helena Hilda Ines Ingrid Irene Iris Ivy "
    "Judith Kavya Kira Leila Lena Lorna Lucia Mabel Maeve Magda Marta Mira Nadia Naomi Natasha Nina Noor Odette Olga "
    "Paula Petra Priya Ramona Renata Rosa Ruth Sabine Salma Sandra Selma Shirin Silvia Simone Sonia Stella Sunita "
    "Sylvia Tamara Tessa Thea Uma Valeria Vera Wanda Yara Yasmin Yuki Zora"
)
MALE = _words(
    "Abel Adrian Ahmed Albert Alonso Anton Arjun Arthur Axel Basil Bernard Boris Carlos Cedric Chen Clyde Conrad "
    "Damian Dario Dmitri Edgar Eduardo Elias Emil Enzo Erik Ernest Felix Fernando Finn Francis Fritz Gabriel Gerard "
    "Gilbert Glen Gunnar Harvey Hassan Hector Henrik Hugo Ibrahim Igor Ismael Ivan Jamal Jerome Joaquin Jorge Julian "
    "Kaito Karl Kenji Kofi Kurt Lars Leon Lionel Lorenzo Luis Magnus Malik Marcel Matteo Milo Mohamed Neil Niklas Oleg "
    "Omar Otto Pablo Pedro Quentin Rafael Rahul Ravi Rolf Ruben Samir Sergio Simon Sven Tariq Theo Tobias Umar Victor "
    "Viktor Walter Wei Xavier Yusuf Zane"
)
#: Past form -> base, of verbs that no rule of spelling tells.
PAST_FORMS = _pairs(
    "was:be were:be became:become began:begin broke:break brought:bring built:build bought:buy caught:catch "
    "chose:choose came:come did:do drew:draw drank:drink drove:drive ate:eat fell:fall felt:feel fought:fight "
    "found:find flew:fly forgot:forget got:get gave:give went:go grew:grow had:have heard:hear hid:hide held:hold "
    "kept:keep knew:know led:lead left:leave lent:lend lay:lie lost:lose made:make meant:mean met:meet paid:pay "
    "rode:ride rang:ring ran:run said:say saw:see sold:sell sent:send sang:sing sat:sit slept:sleep spoke:speak "
    "spent:spend stood:stand stole:steal struck:strike swam:swim took:take taught:teach told:tell thought:think "
    "threw:throw understood:understand woke:wake wore:wear won:win wrote:write"
)
PARTICIPLES = _pairs(
    "been:be begun:begin broken:break chosen:choose done:do drawn:draw drunk:drink driven:drive eaten:eat fallen:fall "
    "flown:fly forgotten:forget gotten:get given:give gone:go grown:grow known:know ridden:ride seen:see spoken:speak "
    "sung:sing swum:swim taken:take thrown:throw worn:wear won:win written:write"
)
#: Class -> words of it; a hyphen also stands for a space.
CLASS_WORDS = {
    "pet": "dog cat turtle hamster rabbit parrot puppy kitten goldfish horse snake lizard bird ferret beagle poodle",
    "instrument": "guitar piano violin drums saxophone trumpet flute cello bass ukulele harp clarinet banjo",
    "sport": "football soccer basketball tennis baseball hockey golf volleyball swimming running yoga boxing surfing "
    "skiing frisbee rugby lacrosse climbing gymnastics softball wrestling karate cycling",
    "food": "pizza sushi pasta burger steak salad cake cookies tacos chocolate cheese chicken ice-cream spaghetti "
    "noodles rice soup bread bacon seafood shrimp lobster curry sandwich cheeseburger pancakes vegetables fruit",
    "drink": "coffee tea beer wine whiskey scotch juice soda milk lemonade smoothie cocktail vodka",
    "music": "jazz rock country metal classical punk hip-hop rap pop blues techno folk concert band singer",
    "job": "teacher nurse doctor lawyer engineer accountant chef cook waitress waiter mechanic librarian janitor "
    "custodian programmer developer writer artist musician farmer veterinarian vet dentist secretary receptionist "
    "manager cashier police officer firefighter realtor pilot photographer salesman clerk barista bartender driver "
    "electrician plumber carpenter stylist model actor actress singer therapist psychologist scientist researcher "
    "consultant analyst journalist editor designer soldier principal professor tutor nanny counselor banker baker "
    "butcher stay-at-home",
    "vehicle": "car truck motorcycle bike bicycle van suv jeep pickup boat tractor convertible honda ford bmw toyota",
    "relative": "mom mother dad father brother sister wife husband son daughter grandmother grandfather uncle aunt "
    "cousin grandma grandpa niece nephew twins kids children parents",
    "color": "red blue green purple pink yellow orange black silver white turquoise",
    "place": "beach park museum library gym church restaurant mall mountains lake zoo theater cafe farm school college",
    "country or city": "italy france spain japan germany england canada mexico china korea thailand paris london tokyo "
    "rome texas california florida york chicago ohio alaska hawaii europe brazil australia ireland seattle",
    "reading": "book books novel novels reading comics poetry fantasy mystery",
    "movie or show": "movie movies film films tv show shows netflix series documentary anime cartoons",
    "game": "chess poker xbox playstation minecraft videogames games monopoly fortnite",
    "art": "painting drawing pottery photography sculpture sketching knitting sewing crochet calligraphy",
    "school subject": "math history biology chemistry physics science english psychology economics",
    "health problem": "allergic allergy diabetes asthma migraine insomnia anxiety depression cancer surgery broken",
    "outdoor activity": "hiking camping fishing hunting kayaking gardening biking skateboarding snowboarding garden",
}
#: Word -> what may stand for it in a question, divided by slashes; an underscore is a space.
SYNONYMS = {
    word: tuple(other.replace("_", " ") for other in others.split("/"))
    for word, others in _pairs(
        "kids:children mom:mother dad:father movie:film movies:films job:work/occupation car:vehicle house:home "
        "buy:purchase/get love:enjoy/like/really_like like:enjoy/love enjoy:like/love go:travel/head start:begin "
        "begin:start make:create help:assist big:large favorite:preferred/most_loved study:learn live:reside own:have "
        "get:receive/obtain watch:see friends:pals/buddies meet:get_to_know cook:prepare_food visit:go_to_see "
        "dog:pet/puppy cat:pet dogs:pets cats:pets see:watch use:rely_on want:wish/hope run:jog trip:journey/vacation "
        "college:university school:class town:city music:songs money:cash wife:spouse husband:spouse grow:raise "
        "learn:pick_up try:attempt spend:pass move:relocate hike:walk_in_nature fun:enjoyment happy:glad "
        "family:relatives plan:intend planning:intending"
    ).items()
}
